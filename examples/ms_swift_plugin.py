"""SFA in ms-swift: swift sft --external_plugins examples/ms_swift_plugin.py --callbacks sfa ..."""

from swift.callbacks import callbacks_map

from sfa_hf import SFACallback

callbacks_map["sfa"] = lambda _args, _trainer: SFACallback(beta=0.5, p=0.25)

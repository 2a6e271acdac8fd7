"""Whether what a model saves can be read again by slices, known from its shapes alone."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, revert_weight_conversion


def converted_tensor(model: PreTrainedModel) -> str | None:
    """A tensor that ``save_pretrained`` stores in another form than the model has in memory; None if none is.

    Mixture-of-experts models fuse in memory the experts that their files hold one by one. Other names are no
    other form: they are found as ``from_pretrained`` finds them.

    Args:
        model: may be on "meta".
    """
    conversions = get_model_conversion_mapping(model)
    for stored in revert_weight_conversion(model, dict(model.state_dict())):
        name = stored
        for conversion in conversions:
            name, matched = conversion.rename_source_key(name)
            if matched is not None and not isinstance(conversion, WeightRenaming):
                return name
    return None

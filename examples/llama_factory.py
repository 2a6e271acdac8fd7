"""SFA in LLaMA-Factory: python examples/llama_factory.py examples/train_full/llama3_full_sft.yaml"""

from llamafactory.train.tuner import run_exp

from sfa_hf import SFACallback

run_exp(callbacks=[SFACallback(beta=0.5, p=0.25)])

"""SFA in TRL's GRPOTrainer: python examples/trl_grpo.py"""

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from sfa_hf import SFACallback
from sfa_hf.models import resolve_model

name = resolve_model("builtin:llama")  # or any Hub id or folder
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
model.config.pad_token_id = tokenizer.pad_token_id
options = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 8}
trainer = GRPOTrainer(
    model,
    reward_funcs=lambda completions, **_: [float(text.count("e")) for text in completions],
    args=GRPOConfig(
        "runs/trl-grpo", max_steps=4, bf16=False, report_to="none", save_strategy="no", **options
    ),
    train_dataset=Dataset.from_dict({"prompt": [f"{n} plus {n} is" for n in range(16)]}),
    processing_class=tokenizer,
    callbacks=[SFACallback(beta=0.5, p=0.25)],
)
trainer.train()

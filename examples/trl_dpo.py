"""SFA in TRL's DPOTrainer: python examples/trl_dpo.py"""

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from sfa_hf import SFACallback
from sfa_hf.models import resolve_model

name = resolve_model("builtin:llama")  # or any Hub id or folder
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
model.config.pad_token_id = tokenizer.pad_token_id
rows = [{"prompt": f"{n} plus {n} is", "chosen": f" {2 * n}.", "rejected": " 7."} for n in range(16)]
trainer = DPOTrainer(
    model,
    args=DPOConfig("runs/trl-dpo", max_steps=4, bf16=False, report_to="none", save_strategy="no"),
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
    callbacks=[SFACallback(beta=0.5, p=0.25)],
)
trainer.train()

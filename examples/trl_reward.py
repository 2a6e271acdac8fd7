"""SFA in TRL's RewardTrainer: python examples/trl_reward.py"""

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from sfa_hf import SFACallback
from sfa_hf.models import resolve_model

name = resolve_model("builtin:llama")  # or any Hub id or folder
model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)
tokenizer = AutoTokenizer.from_pretrained(name)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
model.config.pad_token_id = tokenizer.pad_token_id
rows = [{"chosen": f"{n} plus {n} is {2 * n}.", "rejected": f"{n} plus {n} is 7."} for n in range(16)]
trainer = RewardTrainer(
    model,
    args=RewardConfig("runs/trl-reward", max_steps=4, bf16=False, report_to="none", save_strategy="no"),
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
    callbacks=[SFACallback(beta=0.5, p=0.25)],
)
trainer.train()

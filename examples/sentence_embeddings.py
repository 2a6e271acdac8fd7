"""SFA in sentence-transformers: python examples/sentence_embeddings.py"""

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from sentence_transformers.losses import MultipleNegativesRankingLoss

from sfa_hf import SFACallback
from sfa_hf.models import resolve_model

model = SentenceTransformer(resolve_model("builtin:llama"), device="cpu")  # or any Hub id or folder
model.tokenizer.pad_token = model.tokenizer.pad_token or model.tokenizer.eos_token
pairs = {"anchor": [f"{n} plus {n}" for n in range(16)], "positive": [f"{2 * n}" for n in range(16)]}
trainer = SentenceTransformerTrainer(
    model,
    args=Arguments("runs/embeddings", max_steps=4, report_to="none", save_strategy="no"),
    train_dataset=Dataset.from_dict(pairs),
    loss=MultipleNegativesRankingLoss(model),
    callbacks=[SFACallback(beta=0.5, p=0.25)],
)
trainer.train()

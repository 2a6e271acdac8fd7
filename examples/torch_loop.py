"""SFA in a training loop of one's own: python examples/torch_loop.py"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sfa_hf import SFA
from sfa_hf.models import resolve_model

name = resolve_model("builtin:llama")  # or any Hub id or folder
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
sfa = SFA(beta=0.5, p=0.25, total_steps=8, log=lambda values, step: print(step, values["sfa/drift_before"]))
sfa.attach(model, optimizer)
for step in range(8):
    tokens = tokenizer(f"{step} plus {step} is {2 * step}.", return_tensors="pt")
    model(**tokens, labels=tokens["input_ids"]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    sfa.step()

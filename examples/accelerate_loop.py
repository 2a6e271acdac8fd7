"""SFA in a loop of accelerate's: accelerate launch examples/accelerate_loop.py"""

import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer

from sfa_hf import SFA
from sfa_hf.distributed import clean_end
from sfa_hf.models import resolve_model

accelerator = Accelerator()
name = resolve_model("builtin:llama")  # or any Hub id or folder
model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
sfa = SFA(beta=0.5, p=0.25, total_steps=8, log=lambda values, step: print(step, values["sfa/drift_before"]))
sfa.attach(model, optimizer)
accelerator.register_for_checkpointing(sfa)
with clean_end():
    for step in range(8):
        tokens = tokenizer(f"{step} plus {step} is {2 * step}.", return_tensors="pt").to(accelerator.device)
        accelerator.backward(model(**tokens, labels=tokens["input_ids"]).loss)
        optimizer.step()
        optimizer.zero_grad()
        sfa.step()

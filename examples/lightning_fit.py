"""SFA in PyTorch Lightning: python examples/lightning_fit.py"""

import torch
from lightning.pytorch import LightningModule, Trainer

from sfa_hf.integrations.lightning import SFALightning


class Regression(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        return (self.layer(batch) - batch.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


rows = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=4)
options = {"accelerator": "cpu", "logger": False, "default_root_dir": "runs/lightning"}
Trainer(max_epochs=1, callbacks=[SFALightning(beta=0.5, p=0.25)], **options).fit(Regression(), rows)

"""An ablation's arms at work: their training, and the trained network as a method of the evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clickmask import Segmenter
from clickmask.errors import InvalidInputError
from clickmask.evaluation.methods import Annotator, Clickable
from clickmask_models.checkpoints import load_checkpoint
from clickmask_training.ablation_arms import Ablation, Arm
from clickmask_training.checks import ConfigError
from clickmask_training.config import TrainingConfig
from clickmask_training.data import TrainingData
from clickmask_training.run_folder import WEIGHTS_NAME, changes, read_state
from clickmask_training.starting import load_pretrained
from clickmask_training.trainer import Trainer
from clickmask_training.unexported import torch_segmenter


def train_arm(
    ablation: Ablation, name: str, folder: Path, backbone: Path | None, data: Path, steps: int
) -> None:
    """Trains an arm, or goes on with it; at once done where it has its steps.

    Args:
        ablation: the arms.
        name: of the arm.
        folder: of its run.
        backbone: pretrained weights; None for random ones.
        data: folder of the training data sets.
        steps: of every arm.

    Raises:
        ConfigError: the run in the folder is of another recipe or budget.
    """
    config = replace(ablation.config(name), steps=steps)
    state = read_state(folder)
    if state is not None and (other := changes(state["config"], asdict(config))):
        raise ConfigError(
            f"{folder}: expected a run of this recipe and budget, got one with other settings (its -> now): "
            f"{', '.join(other)}; give another --output"
        )
    network = ablation.network(name)
    if backbone is not None:
        load_pretrained(backbone, network)
    trainer = Trainer(network, config, folder)
    trainer.resume()
    if trainer.step < steps:
        trainer.run(TrainingData(data, config.mixture, config.data))


@dataclass(frozen=True)
class TrainedArm:
    """A trained arm as a method of the evaluation, in torch.

    Attributes:
        name: the arm's.
        folder: of the run whose weights it has.
        arm: what it does at run time.
        config: recipe of those weights.
        steps: that they were trained for.
    """

    name: str
    folder: Path
    arm: Arm
    config: TrainingConfig
    steps: int
    device: str = field(init=False, default="cpu")
    threads: int | None = field(init=False, default=1)

    def open(self) -> Annotator:
        """Loads the weights.

        Raises:
            InvalidInputError: Pixel Diffusion is asked for and the network has no settings of it.
            BackendUnavailableError: there is no fused kernel here.
        """
        network = load_checkpoint(self.folder / WEIGHTS_NAME).eval()
        settings = getattr(network.config, "pixel_diffusion", None) if self.arm.pixel_diffusion else None
        if self.arm.pixel_diffusion and settings is None:
            raise InvalidInputError(f"arm {self.name}: expected a network with Pixel Diffusion's settings")
        return _Sessions(torch_segmenter(network, self.config, settings), self.arm.crop_policy or None)

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        arm = {key: value for key, value in asdict(self.arm).items() if key != "papers"}
        return {"arm": arm, "steps": self.steps, "seed": self.config.seed, "network": self.config.network}


@dataclass(frozen=True)
class _Sessions:
    segmenter: Segmenter
    crop_policy: str | None

    def session(self, image: Any) -> Clickable:
        return self.segmenter.session(image, self.crop_policy)

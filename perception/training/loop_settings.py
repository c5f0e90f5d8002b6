"""Settings of the training loop. Defaults are those that CenterPoint's published models were trained with; others say why."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveFloat, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]


class OptimizerSettings(BaseModel, frozen=True, extra="forbid"):
    """AdamW under a one-cycle schedule. Source: fastai's, as CenterPoint uses it."""

    first_rate: PositiveFloat = Field(default=1e-4, description="learning rate of the first step")
    peak_rate: PositiveFloat = Field(default=1e-3, description="where the rate stops rising")
    last_rate: PositiveFloat = Field(default=1e-8, description="towards which it falls until the end")
    rising: Share = Field(default=0.4, description="share of the steps in which the rate rises")
    momentum: tuple[Share, Share] = Field(default=(0.95, 0.85), description="beta 1 at the first and last rate, and at the peak")
    beta2: Share = 0.99
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.01, description="decoupled, on every parameter, biases too")
    max_gradient_norm: PositiveFloat = Field(default=35.0, description="L2 of all gradients together; larger ones are scaled down to it")


class LoopSettings(BaseModel, frozen=True, extra="forbid"):
    """How long, in which batches and in which arithmetic to train. The end is given by `steps`, `epochs` or `minutes`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="of weights, samples and augmentation")
    batch_size: Annotated[int, Field(ge=1, le=4096)] = Field(default=16, description="samples of all processes together")
    accumulate: Annotated[int, Field(ge=1, le=1024)] = Field(default=1, description="batches whose mean gradient makes one step")
    steps: Annotated[int, Field(ge=1)] | None = Field(default=None, description="of the optimizer")
    epochs: PositiveFloat | None = Field(default=None, description="times that every sample is seen; not for endless data")
    minutes: PositiveFloat | None = Field(
        None,
        description="a budget of time, from the first step on: the schedule then follows the clock where that is ahead of the steps, and "
        "ends with the budget. Not reproducible: two runs see different numbers of samples",
    )
    optimizer: OptimizerSettings = OptimizerSettings()
    ema_decay: Share | None = Field(
        0.999, description="of the running mean of the weights, which is what is kept; it starts lower. None: the last weights are kept"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the network's arithmetic (autocast); auto is bfloat16 on a GPU or CPU (AMX) that has it, else float32"
    )
    compile: bool = Field(default=False, description="neck and head through torch.compile: minutes at the start, a quicker step after")
    checkpoint_minutes: PositiveFloat = Field(default=5.0, description="between two checkpoints")
    log_every: Annotated[int, Field(ge=1, le=10_000)] = Field(default=20, description="steps between two looks at the losses")

    @model_validator(mode="after")
    def _one_length(self) -> "LoopSettings":
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps: expected steps or epochs, got {self.steps} steps and {self.epochs} epochs; leave one out")
        return self

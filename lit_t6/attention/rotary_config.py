"""Settings that mechanisms share whose whole heads are rotated by their positions."""

from dataclasses import dataclass

from lit_t6.attention.base import AttentionConfig, check_positive


@dataclass(kw_only=True)
class RotaryAttentionConfig(AttentionConfig):
    """Settings of the mechanisms whose whole heads are rotated by their positions.

    Args:
        rope_base: base of the rotary frequencies.
        rope_fraction: rotate this share of the features only, the first ones (partial RoPE).
        rope_decay: multiply rotated features by rope_decay^angle, as upstream's "RoPE with decay"; null does not.
        head_norm: RMSNorm with a weight on what each head reads, before the output projection.

    Raises:
        ValueError: a fraction outside (0, 1], or one that leaves no pair of features; a decay outside (0, 1].
    """

    rope_base: float = 10000.0
    rope_fraction: float = 1.0
    rope_decay: float | None = None
    head_norm: bool = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_positive(name, num_heads=self.num_heads, head_dim=self.head_dim)
        if self.rotated_size % 2 and self.rope_fraction == 1:
            raise ValueError(
                f"{name}: head_dim={self.head_dim} is odd, but RoPE rotates pairs of features; "
                f"take {self.head_dim + 1}."
            )
        if not 0 < self.rope_fraction <= 1:
            raise ValueError(f"{name}: rope_fraction must be in (0, 1], got {self.rope_fraction}.")
        if self.rope_dim < 2:
            raise ValueError(
                f"{name}: rope_fraction={self.rope_fraction} of {self.rotated_size} features leaves no pair to rotate; "
                f"take at least {2 / self.rotated_size:.3g}."
            )
        if self.rope_decay is not None and not 0 < self.rope_decay <= 1:
            raise ValueError(f"{name}: rope_decay must be in (0, 1], or null for none, got {self.rope_decay}.")

    @property
    def rotated_size(self) -> int:
        """Features of the rows that RoPE acts on."""
        return self.head_dim

    @property
    def rope_dim(self) -> int:
        """Features that RoPE rotates: the share of them, made even, as upstream does."""
        return int(self.rotated_size * self.rope_fraction) // 2 * 2

    @property
    def label_suffix(self) -> str:
        """What was chosen besides, for labels; empty for the defaults."""
        chosen = []
        if self.rope_fraction != 1:
            chosen.append(f"{self.rope_fraction:.2g} of RoPE")
        if self.rope_decay is not None:
            chosen.append(f"RoPE decay {self.rope_decay:g}")
        if self.head_norm:
            chosen.append("head norm")
        return "".join(f", {what}" for what in chosen)

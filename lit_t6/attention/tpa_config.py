"""Settings of tensor product attention and all its variants (arXiv 2501.06425, sections 3 and 4, appendices C and G).

Letters: C model width, H heads, G key/value heads, D head size of queries and keys, E of values, R rank (Rq, Rk, Rv).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from lit_t6.attention.base import check_divides, check_positive
from lit_t6.attention.cache import AttentionCache, FactorCache, KeyValueCache
from lit_t6.attention.rotary_config import RotaryAttentionConfig
from lit_t6.ops import Impl, check_impl
from lit_t6.ops.tpa.factors import MAX_HEADS, MAX_SIZE, SIZE_MULTIPLE

Factorized = Literal["qkv", "kv", "q"]
HeadActivation = Literal["none", "sigmoid", "softmax"]
RopeOn = Literal["factors", "heads"]


@dataclass
class TPAConfig(RotaryAttentionConfig):
    """Tensor product attention: queries, keys and values are sums of outer products of per-token factors.

    A is what a factor says to the heads, B what it says to the features of a head: Q = (1/Rq) Σ_r a_r ⊗ b_r.

    Args:
        num_heads: H; null solves for the count that meets the budget of 4·d_model² parameters a layer.
        head_dim: D, of queries and keys.
        rank_q: number of outer products that make up the queries of a token; not read where queries are dense.
        rank_k: of the keys; cached.
        rank_v: of the values; cached.
        value_dim: E, size of a head's values; null for head_dim.
        factorized: which of queries, keys and values are sums of factors; the others are dense. "qkv" is TPA, "kv"
            TPA-KVonly, "q" TPA-Qonly: fewer parameters, but the cache of multi-head attention.
        num_kv_heads: G, dense key/value heads of factorized=q; null for as many as there are heads. Divides H.
        static_a: the A factors are learned parameters, the same for all tokens (non-contextual A).
        static_b: the B factors are (non-contextual B); keys are told apart by their A and their position.
        shared_b: keys and values share their B (b_v is b_k before RoPE); needs rank_k = rank_v.
        head_activation: applied to the A factors: "sigmoid", "softmax" (over the heads) or "none".
        third_order_dim: third order: each row of B is an outer product of a vector of this size, which RoPE rotates,
            and one of D (or E) divided by it; null for second order.
        rope_on: what RoPE rotates, the B "factors" or the "heads" that they make: the same numbers in other roundings.
        impl: how the attention is computed, see `lit_t6.ops.tpa_attention` and, for decoding, `lit_t6.ops.tpa_decode`.
            "triton" is by the kernels or not at all, save for prompts, which fill a cache by "auto".
        rope_base: base of the rotary frequencies.
        rope_fraction: share of the features that RoPE rotates, the first ones (partial RoPE).
        rope_decay: base of the decay of what RoPE rotates; null for none.
        head_norm: RMSNorm with a weight on what each head reads, before the output projection.

    Raises:
        ValueError: a number out of range, or settings that do not go together.
    """

    short_names: ClassVar[dict[str, dict[str, Any]]] = {
        "TPA": {"num_heads": None, "factorized": "qkv", "num_kv_heads": None},
        "TPA-KVonly": {"num_heads": None, "factorized": "kv", "num_kv_heads": None},
        "TPA-Qonly": {"num_heads": None, "factorized": "q", "num_kv_heads": None},
    }

    num_heads: int | None = None
    head_dim: int = 64
    rank_q: int = 6
    rank_k: int = 2
    rank_v: int = 2
    value_dim: int | None = None
    factorized: Factorized = "qkv"
    num_kv_heads: int | None = None
    static_a: bool = False
    static_b: bool = False
    shared_b: bool = False
    head_activation: HeadActivation = "none"
    third_order_dim: int | None = None
    rope_on: RopeOn = "factors"
    impl: Impl = "auto"

    def __post_init__(self) -> None:
        check_positive(
            "TPAConfig",
            rank_q=self.rank_q,
            rank_k=self.rank_k,
            rank_v=self.rank_v,
            value_dim=self.value_dim,
            num_kv_heads=self.num_kv_heads,
            third_order_dim=self.third_order_dim,
        )
        for name, kind in (("factorized", Factorized), ("head_activation", HeadActivation), ("rope_on", RopeOn)):
            if getattr(self, name) not in get_args(kind):
                options = ", ".join(get_args(kind))
                raise ValueError(f"TPAConfig: {name}={getattr(self, name)!r}; expected one of {options}.")
        check_impl(self.impl)
        check_positive("TPAConfig", num_heads=self.num_heads, head_dim=self.head_dim)
        self._check_combination()
        super().__post_init__()

    def _check_combination(self) -> None:
        """Refuse settings that exclude each other, with the reason."""
        if self.static_a and self.static_b:
            raise ValueError(
                "TPAConfig: static_a and static_b together leave nothing that depends on the tokens; choose one."
            )
        if self.num_kv_heads is not None:
            if self.factorized != "q":
                raise ValueError(
                    f"TPAConfig: num_kv_heads={self.num_kv_heads} counts dense key/value heads, but "
                    f"factorized={self.factorized} has none; drop it, or set factorized to q."
                )
            check_divides("TPAConfig", self.num_kv_heads, self.num_heads)
        if self.shared_b:
            if self.factorized == "q":
                raise ValueError("TPAConfig: shared_b shares factors of keys and values; factorized=q has none.")
            if self.rank_k != self.rank_v or self.value_size != self.head_dim:
                raise ValueError(
                    f"TPAConfig: shared_b needs rank_k = rank_v and value_dim = head_dim, got ranks {self.rank_k} and "
                    f"{self.rank_v}, sizes {self.head_dim} and {self.value_size}."
                )
        if self.third_order_dim is not None:
            small = self.third_order_dim
            sizes = {"head_dim": self.head_dim} | ({"value_dim": self.value_size} if "v" in self.factorized else {})
            if small % 2 or any(size % small for size in sizes.values()):
                raise ValueError(
                    f"TPAConfig: third_order_dim={small} must be even, since RoPE rotates pairs of it, and divide "
                    + " and ".join(f"{name}={size}" for name, size in sizes.items())
                    + "."
                )
            if self.rope_on == "heads":
                raise ValueError(
                    "TPAConfig: third_order_dim with rope_on=heads would rotate features that RoPE must leave alone "
                    "(theorem C.1 rotates b only); use rope_on=factors."
                )

    @property
    def value_size(self) -> int:
        return self.value_dim or self.head_dim

    @property
    def rotated_size(self) -> int:
        return self.third_order_dim or self.head_dim

    @property
    def num_heads_multiple(self) -> int:
        return self.num_kv_heads or 1

    @property
    def kv_heads(self) -> int:
        """G of dense keys and values."""
        return self.num_kv_heads or self.heads()

    @property
    def rotates_on_read(self) -> bool:
        """Whether the b_k of cached tokens is rotated when it is read, as the cache cannot hold it rotated."""
        return self.shared_b or self.static_b

    @property
    def is_packed(self) -> bool:
        """Whether all factors are as one product of the tokens makes them, but for a rotation of whole ones.

        Queries may be dense heads.
        """
        six = ["a_q", "a_k", "a_v", "b_q", "b_k", "b_v"]
        kv_only = ["q", "a_k", "a_v", "b_k", "b_v"]
        made = list(self.pieces()) in (six, kv_only) and self.head_activation == "none"
        return made and self.rope_on == "factors" and self.rope_dim == self.head_dim == self.value_size

    def rank(self, letter: str) -> int:
        """Rank of the queries ("q"), keys ("k") or values ("v")."""
        return {"q": self.rank_q, "k": self.rank_k, "v": self.rank_v}[letter]

    def size(self, letter: str) -> int:
        """D of queries and keys, E of values."""
        return self.value_size if letter == "v" else self.head_dim

    def _all_pieces(self) -> dict[str, tuple[int, int]]:
        """(count, size) of dense parts, A factors, B factors and third-order C factors, in this order."""
        factored = self.factorized
        features = [letter for letter in factored if not (self.shared_b and letter == "v")]
        dense = {
            letter: (self.heads() if letter == "q" else self.kv_heads, self.size(letter))
            for letter in "qkv"
            if letter not in factored
        }
        a = {f"a_{letter}": (self.rank(letter), self.heads()) for letter in factored}
        b = {f"b_{letter}": (self.rank(letter), self.third_order_dim or self.size(letter)) for letter in features}
        small = self.third_order_dim
        c = {f"c_{letter}": (self.rank(letter), self.size(letter) // small) for letter in features} if small else {}
        return dense | a | b | c

    def _is_static(self, name: str) -> bool:
        return (self.static_a and name.startswith("a_")) or (self.static_b and name.startswith(("b_", "c_")))

    def pieces(self) -> dict[str, tuple[int, int]]:
        """What is computed from each token: names such as "a_q", "b_k" or (dense) "v", each with (count, size).

        In the order of the rows of the one projection that makes them all.
        """
        return {name: shape for name, shape in self._all_pieces().items() if not self._is_static(name)}

    def static_pieces(self) -> dict[str, tuple[int, int]]:
        """Factors that are parameters, each with its shape (R, H or D)."""
        return {name: shape for name, shape in self._all_pieces().items() if self._is_static(name)}

    @property
    def num_columns(self) -> int:
        """Columns of the one GEMM that makes everything which depends on the token."""
        return sum(count * size for count, size in self.pieces().values())

    def num_parameters(self, d_model: int) -> int:
        static = sum(count * size for count, size in self.static_pieces().values())
        return d_model * (self.num_columns + self.heads() * self.value_size) + static + self.norm_weights

    def projection_flops_per_token(self, d_model: int) -> int:
        return 2 * d_model * (self.num_columns + self.heads() * self.value_size)  # static factors multiply no token

    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self.pieces().items() if name[-1] in "kv"}

    @property
    def cache_class(self) -> type[AttentionCache]:
        return KeyValueCache if self.factorized == "q" else FactorCache

    def decode_multiply_adds_per_cached_token(self) -> int:
        """Paper A.4, and by the same reasoning for the variants that it leaves out.

        Dense queries are multiplied with each b_k at once: H·Rk·D + H·Rk instead of Rq·Rk·D + H·Rq·Rk. Dense keys and
        values take what multi-head attention takes. Of third order, ⟨b ⊗ c, b' ⊗ c'⟩ = ⟨b, b'⟩·⟨c, c'⟩; the rows of B
        of the values are formed, and for dense queries those of the keys. Static factors are not read from memory, but
        multiplied all the same. Left out is the rotation of b_k on reading, where it is static or shared.
        """
        heads, keys, values, small = self.heads(), self.head_dim, self.value_size, self.third_order_dim
        if self.factorized == "q":
            return heads * (keys + values)
        read = heads * self.rank_v * values
        formed = self.rank_v * values if small else 0
        if self.factorized == "qkv":
            products = small + keys // small + 1 if small else keys
            scores = self.rank_q * self.rank_k * (products + heads)
        else:
            formed += self.rank_k * keys if small else 0
            scores = heads * self.rank_k * (keys + 1)
        return scores + formed + read

    def attention_flops_per_token(self, seq_len: int) -> float:
        heads = self.heads()
        rank_sums = sum(2 * self.rank(letter) * heads * self.size(letter) for letter in self.factorized)
        return rank_sums + 2 * heads * (self.head_dim + self.value_size) * (seq_len + 1) / 2

    @property
    def backend(self) -> str:
        if self.impl == "reference":
            return "the reference einsum"
        alike = self.value_size == self.head_dim and self.num_kv_heads is None
        fits = self.head_dim <= MAX_SIZE and self.head_dim % SIZE_MULTIPLE == 0 and (self.num_heads or 1) <= MAX_HEADS
        if alike and fits:
            return f"{super().backend}; on a GPU by kernels that keep factors alone"
        return f"{super().backend} of heads that are formed by products and kept"

    def numbers(self) -> dict[str, float]:
        ranks = {f"rank_{letter}": float(self.rank(letter)) if letter in self.factorized else 0.0 for letter in "qkv"}
        dense = {"num_kv_heads": float(self.kv_heads) if self.factorized == "q" else 0.0}
        return super().numbers() | ranks | dense | {"value_dim": float(self.value_size)}

    @property
    def label(self) -> str:
        name = {"qkv": "TPA", "kv": "TPA-KVonly", "q": "TPA-Qonly"}[self.factorized]
        ranks = ", ".join(str(self.rank(letter)) for letter in self.factorized)
        chosen = {
            "non-contextual A": self.static_a,
            "non-contextual B": self.static_b,
            "shared B": self.shared_b,
            f"{self.head_activation} of A": self.head_activation != "none",
            f"third order ({self.third_order_dim})": self.third_order_dim is not None,
            "RoPE on heads": self.rope_on == "heads",
            f"{self.num_kv_heads} KV head{'' if self.num_kv_heads == 1 else 's'}": self.num_kv_heads is not None,
            f"values of {self.value_size}": self.value_size != self.head_dim,
        }
        return f"{name} ({ranks})" + "".join(f", {what}" for what, is_so in chosen.items() if is_so) + self.label_suffix

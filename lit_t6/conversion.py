"""Checkpoints of other people, or in shards, made one file of ours: what `python cli.py convert` does."""

from typing import TYPE_CHECKING

from lit_t6.data import load_tokenizer
from lit_t6.interop import find_arch
from lit_t6.training.places import check_output

if TYPE_CHECKING:  # what loads PyTorch and Lightning is imported where it is used: the help does not wait for it
    from lit_t6.model import T6Model


def convert_upstream(
    path: str,
    arch: str,
    output: str,
    config_json: str | None = None,
    tokenizer: str | None = None,
    overwrite: bool = False,
) -> "T6Model":
    """Make a checkpoint of ours from a model that the authors' code (tensorgi/TPA) trained.

    Args:
        path: a folder with config.json and weights, or one file of weights; see `lit_t6.interop.read_upstream`.
        arch: name of the authors' model file, such as T6, T6_kvonly or llama-gqa; see `lit_t6.interop.UPSTREAM_ARCHS`.
        output: the checkpoint to write.
        config_json: the model's configuration, where the path has none.
        tokenizer: a tokenizer.json to keep in the checkpoint, so that it can generate text by itself.
        overwrite: replace `output` if it is there.

    Returns:
        The model.

    Raises:
        ValueError: `output` exists, or what cannot be read; see `read_upstream` and `from_upstream`.
    """
    find_arch(arch)  # a wrong name is told before gigabytes are read
    check_output(output, "--output", "model.ckpt", overwrite)
    bpe = load_tokenizer(tokenizer) if tokenizer else None
    from lit_t6.interop import archs_that_fit, from_upstream, plain_weights, read_upstream
    from lit_t6.training import write_checkpoint

    state_dict, config = read_upstream(path, config_json)
    weights = plain_weights(state_dict)
    model = from_upstream(weights, config, arch)
    write_checkpoint(output, model, bpe)
    also = [name for name in archs_that_fit(weights, config) if name != find_arch(arch).name]
    if also:
        print(f"Names and shapes of these weights fit {', '.join(also)} as well: only you know that it is {arch}.")
    return model


def convert_shards(path: str, output: str, overwrite: bool = False) -> "T6Model":
    """Make one file of a checkpoint that several ranks wrote in shards, with all that it holds to go on training.

    Args:
        path: the checkpoint's folder, of a training with `ShardedStrategy` and `state_dict_type: sharded`.
        output: the checkpoint to write.
        overwrite: replace `output` if it is there.

    Returns:
        The model.

    Raises:
        ValueError: `output` exists, or `path` is no such folder or a damaged one.
    """
    check_output(output, "--output", "model.ckpt", overwrite)
    from lit_t6.training import read_checkpoint
    from lit_t6.training.checkpoint_files import is_sharded, write_atomically

    checkpoint = read_checkpoint(path)
    if not is_sharded(path):
        raise ValueError(f"{path}: is one file already; expected the folder of a checkpoint in shards.")
    write_atomically(checkpoint.content, output)
    return checkpoint.model()

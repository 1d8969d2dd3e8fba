"""What `--help` shows: an overview of the commands, and examples of each."""

CHECKPOINT = "logs/quickstart/version_0/checkpoints/last.ckpt"
EXAMPLES = {
    "prepare": """\
  python cli.py prepare my_texts/ --output data/mine --vocab_size 4096
  python cli.py prepare web.jsonl.gz --output data/web --text_key content --tokenizer gpt2/tokenizer.json
""",
    "fit": """\
  python cli.py fit --config configs/quickstart.yaml
      the same command again goes on with a run that was interrupted (--auto_resume false starts afresh)
  python cli.py fit --config configs/quickstart.yaml --config configs/attention/mha.yaml --trainer.max_steps 100
      files stack, and a typed option wins wherever it stands
  python cli.py fit --config configs/quickstart.yaml --model.attention MQA --trainer.logger.init_args.name mqa
      a mechanism at the same number of parameters, logged under another name; `budget` lists them
  python cli.py fit --config configs/quickstart.yaml --model.attention.rank_q 4 --print_config
      what would run, as YAML; --model.attention.help TPA lists a mechanism's settings
  python cli.py fit --config configs/model/small.yaml --data.path data/mine --trainer.devices 8 --trainer.strategy ddp
      several GPUs, the same batch and learning rate; fsdp instead of ddp shares out weights and optimizer as well
""",
    "validate": f"""\
  python cli.py validate --ckpt_path {CHECKPOINT}
      model and data are those of the checkpoint; what you type wins
  python cli.py validate --ckpt_path {CHECKPOINT} --data.path data/other
""",
    "test": f"""\
  python cli.py test --ckpt_path {CHECKPOINT}
      needs data prepared with --test_fraction above 0
""",
    "predict": f"""\
  python cli.py predict --ckpt_path {CHECKPOINT} --predictions.path losses.jsonl
  python cli.py predict --ckpt_path {CHECKPOINT} --data.predict_split test
      all documents of the test split; --predictions.overwrite true replaces the file of the last time
""",
    "generate": f"""\
  python cli.py generate --ckpt_path {CHECKPOINT} --prompt "It was" --seed 1
  python cli.py generate --ckpt_path {CHECKPOINT} --temperature 0 --max_new_tokens 50
      the likeliest token each time: the same text without a seed
  python cli.py generate --ckpt_path {CHECKPOINT} --prompt "It was" --stop '["\\n\\n"]'
      ends before the first empty line; a text also ends at end-of-text and after --max_new_tokens
  python cli.py generate --ckpt_path {CHECKPOINT} --prompts_file prompts.txt --num_samples 4 --output texts.jsonl
      a prompt a line (or .jsonl with a "prompt" each), four texts of each, all computed as one batch
  python cli.py generate --ckpt_path {CHECKPOINT} --prompts_file prompts.txt --batch_size 8
      eight rows at a time, where memory is short; stderr says how much the cache takes
""",
    "budget": """\
  python cli.py budget
      every mechanism at the same number of parameters
  python cli.py budget --base configs/model/medium.yaml --config configs/attention/tpa.yaml --config MHA
  python cli.py budget --base configs/model/medium.yaml --config TPA --config TPA,rank_q=4 --config TPA,rank_k=1
      one mechanism at several settings; files, a short name and settings of one model are joined by commas
  python cli.py budget -c configs/paper/xl-tpa.yaml -c configs/paper/xl-mha.yaml --context 32768 --batch_size 8
  python cli.py budget --model.d_model 2048 --model.attention.head_dim 128 --format json
""",
    "bench decode": """\
  python cli.py bench decode --output speed
      the whole grid: d_model 1024, 2048 and 3072, batch 1 to 16, cache 4,096 to 524,288; many minutes on a GPU
  python cli.py bench decode --output speed --batch 1 16 --cache 4096 65536 524288 --peers torch lit_t6 --seconds 240
      what is asked first; the same with --resume true and other --peers adds to it
  python cli.py bench decode --output odd --num_heads 34 47 --ranks 6,2,2 --mechanisms TPA --upstream ~/TPA
      head counts of trained models, beside the authors' kernel in a clone of tensorgi/TPA
  python cli.py bench decode --output tiny --device cpu --dtype float32 --d_model 128 --batch 1 --cache 256 512
      on a CPU, to see how it goes
""",
    "bench train": """\
  python cli.py bench train --output speed
      the paper's small and medium models of every mechanism, 20 × 1,024 tokens a step; many minutes on a GPU
  python cli.py bench train --output speed --config configs/paper/medium-tpa.yaml --upstream ~/TPA
      one model beside the authors' code in a clone of tensorgi/TPA; other files with --resume true add to it
  python cli.py bench train --output long --config configs/paper/small-tpa.yaml --batch 1 --seq_len 8192 32768
      long sequences; --batch 4,1 would take four of the shorter ones; --recompute selective has them take less memory
  python cli.py bench train --output tiny --device cpu --compile false --config configs/quickstart.yaml --batch 2
      on a CPU, to see how it goes
""",
    "sweep run": """\
  python cli.py sweep run configs/sweep/rank.yaml --dry_run true
      what would be trained: every cell with its parameters, cache, estimated time and memory
  python cli.py sweep run configs/sweep/rank.yaml
      on all GPUs of this machine; the same command again goes on, whatever interrupted it
  python cli.py sweep run configs/sweep/rank.yaml configs/sweep/rank-quick.yaml --workers 2
      files stack: a small version on a CPU, two trainings at a time
  python cli.py sweep run configs/sweep/rank.yaml --storage postgresql://me:secret@db.example.org/studies
      on several machines: the same on each
  python cli.py sweep run configs/sweep/rank.yaml --workers_per_gpu 2 --seeds 0,1 --options.trainer.max_steps 1000
      small models share a GPU; settings of the study are typed as they stand in its file
  python cli.py sweep run --from rank.tar.gz
      goes on with a study that `sweep pack` has put into a file; --options.data.path says where its data lies here
""",
    "sweep status": """\
  python cli.py sweep status configs/sweep/rank.yaml
      at any time, also while it runs
  python cli.py sweep status logs/sweeps/rank --format json
      the folder of a study that was begun will do; with --storage from any machine
""",
    "sweep report": """\
  python cli.py sweep report configs/sweep/rank.yaml
      report.md, CSV, figures and a folder for TensorBoard, in reports/rank; at any time, also while it runs
  python cli.py sweep report logs/sweeps/rank --output experiments/rank/results
  python cli.py sweep report --from rank.tar.gz
      the same tables from what `sweep pack` has put into a file
""",
    "sweep pack": """\
  python cli.py sweep pack configs/sweep/rank.yaml --output rank.tar.gz
      the journal, and metrics and curves of all trials that ended; no checkpoints
""",
    "convert": """\
  python cli.py convert --from upstream --arch T6 T6-small/ --tokenizer gpt2/tokenizer.json --output t6-small.ckpt
      T6-small/ holds config.json beside pytorch_model.bin or model.safetensors, as the authors' code saves them
  python cli.py convert --from upstream --arch llama-gqa weights.pt --config_json config.json --output gqa.ckpt
  python cli.py convert --from shards logs/large/version_0/checkpoints/last.ckpt --output large.ckpt
      a folder that several devices wrote (ShardedStrategy, state_dict_type: sharded), as one file
""",
    "completion": """\
  lit-t6 completion bash > ~/.local/share/bash-completion/completions/lit-t6
      where bash-completion finds it when lit-t6 is first completed; make the folder if it is not there
  echo 'source ~/.local/share/bash-completion/completions/lit-t6' >> ~/.bashrc
      also completes ./cli.py, and needs no bash-completion
  lit-t6 completion zsh > "${fpath[1]}/_lit-t6"
""",
}
SWEEP_OVERVIEW = """\
usage: python cli.py sweep {{run,status,report,pack}} STUDY [options]

Run an ablation study: a YAML file says what is compared, every trial is a training of its own, on all GPUs, of several
machines too, and what is interrupted goes on.

  run        train what the study asks for; --dry_run true shows it first
  status     how it stands: done, running, pruned, failed, the best so far, the time left
  report     what it found: tables with intervals, figures, TensorBoard
  pack       put it into one small file, to be gone on with elsewhere

examples:
{examples}
`python cli.py sweep run --help` explains the options; configs/sweep/rank.yaml, how a study is written.
""".format(examples="".join(EXAMPLES[f"sweep {command}"] for command in ("run", "status", "report", "pack")))
OVERVIEW = """\
usage: python cli.py COMMAND [options]          (or: lit-t6 COMMAND [options])

Train T6, the tensor product attention transformer, and its rivals; see what they can do.

data
  prepare    text files, JSONL or folders → tokenizer + token shards
training (Lightning; every option of a YAML file is also a --dotted.option)
  fit        train a model; the same command again goes on after an interruption
  validate   loss, perplexity and bits per byte of a checkpoint on the validation split
  test       the same on the test split
  predict    the loss of every document, as JSONL
choose
  budget     parameters, cache bytes and decode cost of configurations, as a table; needs no data
  bench      speed beside peers and floors: bench decode, bench train
compare
  sweep      an ablation study from one YAML file, on all GPUs: sweep run, status, report, pack
use
  generate   continue prompts with a trained model
  convert    make a checkpoint of a model that the authors' own code (tensorgi/TPA) trained, or of shards
  completion a script with which the shell completes commands and options

examples
{examples}
`python cli.py COMMAND --help` lists the options of a command, `fit --help all` every one of Lightning's too; --debug
shows where an error arose.

exit status: 0 done; 1 an error; 75 a signal ended the training, the checkpoint is saved and the same command goes on;
130 stopped at once by Ctrl-C (in a training: by the second), 143 or 138 by SIGTERM or SIGUSR1 before its first step.
""".format(examples="".join(EXAMPLES[command] for command in ("prepare", "fit", "validate", "budget", "generate")))

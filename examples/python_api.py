# %% [markdown]
# # fairway from Python
#
# Text to a model, the model to a score, the score to a proof. The model here is a miniature, so
# that all of this takes a minute; `recipe = "pocket"` is the real one, and takes eight.

# %%
import tempfile
from pathlib import Path

import numpy as np

import fairway
from fairway.recipes.registry import smoke

work = Path(tempfile.mkdtemp())
verses = [f"{n} green bottles hanging on the wall, {n * 7} more. " * 6 for n in range(40)]
(work / "song.txt").write_text("\0".join(verses))  # NUL separates documents

# %% [markdown]
# ## Text to tokens
#
# Whole documents are held out for validation. The tokenizer gives back the exact bytes.

# %%
recipe = smoke(fairway.recipe("pocket"), steps=30)
data = work / "data"
fairway.prepare(data, [work / "song.txt"], vocab_size=300, val_fraction=0.2)

# %% [markdown]
# ## A run: train, pack, score, prove, audit
#
# `resume="auto"` starts it, or goes on with it after an interruption.

# %%
result = fairway.run(recipe, data, work / "run", resume="auto", proof_tokens=200, audit_seconds=10)
if result.score and result.artifact:  # what was not run is None
    print(f"{result.score.bits_per_byte:.3f} bits per byte, {result.artifact.bytes_total:,} bytes")
if result.proof and result.audit:
    print("proved:", result.proof.holds, " audit:", result.audit.verdict)

# %% [markdown]
# ## The model in use

# %%
model = fairway.load(work / "run" / "model.fwy")
print(model)
print("".join(model.generate("5 green", num_tokens=20)))

# %%
score = model.score(verses[3])
print(score)
print("the dearest byte:", verses[3].encode()[int(score.byte_bits.argmax())].to_bytes())
print("frozen:", model.score(verses[3], learn=False).bits_per_byte)

# %%
ids = model.encode("7 green bottles")  # (n,) int64, a BOS first
logits = model.logits(ids)  # (n, V) float32
print(ids.shape, tuple(logits.shape), model.decode(ids))

# %% [markdown]
# ## Any bytes in, the same bytes out

# %%
song = "".join(verses).encode()
packed = model.compress(song)
assert model.decompress(packed) == song
print(len(song), "to", len(packed), "bytes")

# %% [markdown]
# ## Somebody's score, audited
#
# A scorer is any function from tokens (n,) to nats (n - 1,). This one looks at the text that is
# still to come.


# %%
def counts_of_the_whole_text(tokens):
    counts = np.bincount(tokens, minlength=16)
    return -np.log(counts[tokens[1:]] / counts.sum())


report = fairway.audit(counts_of_the_whole_text, vocab_size=16, seconds=20)
print(report.verdict)
assert report.verdict == "illegal"

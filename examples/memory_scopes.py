"""Memory scopes: free intermediate tensors with `tidy`, and count what is in use."""

import gpt2_wgpu as gw


@gw.tidy("normalize")  # frees every tensor made in the function but the returned one
def normalize(x: gw.Tensor) -> gw.Tensor:
    ones = gw.tensor([[1.0]] * x.shape[1])
    return x / gw.ops.matmul(x, ones)  # the product and `ones` are freed


def tensors() -> int:
    return gw.memory().num_tensors


before = tensors()
with gw.tidy() as scope:
    rows = normalize(gw.tensor([[1.0, 3.0], [2.0, 2.0]]))
    kept = scope.escape(rows * 100.0)  # moves out of the scope
    print("inside the scope:", tensors() - before, "tensors")
print("after the scope:", tensors() - before, "tensor:", kept.tolist())

gw.dispose(kept)
print("after dispose:", tensors() - before, "tensors,", gw.memory().num_bytes, "bytes in use")

profile = gw.profile(lambda: normalize(gw.tensor([[1.0, 1.0]])))
print("peak while normalizing:", profile.peak_bytes, "bytes")
gw.dispose(profile.result)

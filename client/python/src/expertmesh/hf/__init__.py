"""Models of the transformers library (4.57 and 5) with their experts in a mesh.

    import transformers
    from expertmesh import hf

    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    with hf.attach(model, "127.0.0.1:50050"), hf.deadline(60):
        model.generate(**inputs)

    model = hf.skeleton(path, address="127.0.0.1:50050")   # never reads the experts' weights

Needs torch and transformers: `pip install "expertmesh[hf]"`.
"""

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError as _error:
    raise ImportError(
        f'expertmesh.hf needs torch and transformers ({_error}): pip install "expertmesh[hf]"'
    ) from _error

from expertmesh.hf.attachment import Attachment, attach
from expertmesh.hf.context import deadline, trace
from expertmesh.hf.skeleton import skeleton

__all__ = ["Attachment", "attach", "deadline", "skeleton", "trace"]

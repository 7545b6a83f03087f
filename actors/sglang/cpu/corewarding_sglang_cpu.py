"""Lets SGLang be imported without its compiled kernels, which have no CPU build. Installed into its environment on CPU machines only.

In the stand-in `sgl_kernel` every name exists and none works: a call raises NotImplementedError and is written to the file named by
CW_SGLANG_SHIM_CALLS, so that a test can check that none was made. The operators whose schemas PyPI's torchvision expects from its
CUDA library are declared without an implementation.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from typing import Any


class _Missing:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: object, **__: object) -> None:
        path = os.environ.get("CW_SGLANG_SHIM_CALLS")
        if path:
            with open(path, "a", encoding="utf-8") as file:
                file.write(self._name + "\n")
        raise NotImplementedError(f"{self._name} has no CPU build")

    def __getattr__(self, name: str) -> _Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self._name}.{name}")


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> _Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    _declared: Any = None

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision" and self._declared is None:
            import torch

            self._declared = torch.library.Library("torchvision", "DEF")
            self._declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self._declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        if fullname.split(".")[0] == "sgl_kernel":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__version__ = "0.0.0"  # type: ignore[attr-defined]  # read by SGLang


sys.meta_path.insert(0, _Finder())

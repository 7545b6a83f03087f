"""Lets SGLang be imported where its compiled kernels are not published: installed into its environment on CPU machines only.

`sgl_kernel` becomes a module in which every name exists and none works: a call raises NotImplementedError and is written to the file
that CW_SGLANG_SHIM_CALLS names, so that a test can say none was ever made. The operators whose schemas PyPI's torchvision expects
from its CUDA library are declared, without an implementation.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import types


class _Missing:
    def __init__(self, name):
        self._name = name

    def __call__(self, *_, **__):
        path = os.environ.get("CW_SGLANG_SHIM_CALLS")
        if path:
            with open(path, "a", encoding="utf-8") as file:
                file.write(self._name + "\n")
        raise NotImplementedError(f"{self._name} has no CPU build")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self._name}.{name}")


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    _declared = None

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision" and self._declared is None:
            import torch

            self._declared = torch.library.Library("torchvision", "DEF")
            self._declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self._declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        if fullname.split(".")[0] == "sgl_kernel":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        module.__version__ = "0.0.0"


sys.meta_path.insert(0, _Finder())

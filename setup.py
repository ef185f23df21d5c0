"""Packaging of ShortcutBed; `pip install -e .` installs everything that the quickstart needs."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: Files of the checkout that benchmark/core/shipped.py finds in an installed package too.
SHIPPED = ("sweeps/*.toml", "results/published/*.csv", "results/published/README.md")

#: What the PyMC engine of `collect_results --engine nuts` needs.
BAYES = ["pymc>=5.16"]


class BuildWithShippedFiles(build_py):
    """Copy the shipped files into the package, unless the checkout itself is installed."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for pattern in SHIPPED:
            for source in sorted(ROOT.glob(pattern)):
                target = Path(self.build_lib, "benchmark", "shipped", source.relative_to(ROOT))
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


def version() -> str:
    """The version that the package itself states."""
    text = (ROOT / "benchmark" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("benchmark/__init__.py states no version")
    return found[1]


setup(
    name="shortcutbed",
    version=version(),
    description="A benchmark harness for shortcut learning: "
    "train, explain, and say how sure the answer is",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The ShortcutBed authors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=[
        "shortcut learning",
        "spurious correlations",
        "Clever Hans",
        "distribution shift",
        "group robustness",
        "explainability",
        "benchmark",
    ],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(str(ROOT), include=["benchmark*", "algorithms*", "datasets*"]),
    package_data={name: ["py.typed"] for name in ("benchmark", "algorithms", "datasets")},
    cmdclass={"build_py": BuildWithShippedFiles},
    entry_points={"console_scripts": ["shortcutbed = benchmark.cli.programs:main"]},
    # .ci/run tests the newest versions and the oldest that are allowed here.
    install_requires=[
        # 2.6: explanations switch the compiler off by torch.compiler.set_stance. Below 3:
        # benchmark/core/compilation.py knows how torch marks compiled networks.
        "torch>=2.6,<3",
        "torchvision>=0.21",
        "numpy>=1.26",
        "pandas>=2.1",
        "scipy>=1.11.1",  # 1.11.0 was withdrawn
        "scikit-learn>=1.4",
        "scikit-image>=0.22",
        "pillow>=10.1",
        *BAYES,
        "tabulate>=0.9",
        "matplotlib>=3.8",
        # 5.2: a pool whose processes are all killed gives its tasks back. Below 6: the local
        # launcher knows the name that pebble gives its processes.
        "pebble>=5.2,<6",
        # 4.1: a lease expires on the observer's monotonic clock. Below 5: benchmark/launch/lease.py
        # knows the names of the files that filelock puts aside while it takes a lease over.
        "filelock>=4.1,<5",
        "rich>=13.7.1",
    ],
    extras_require={
        "bayes": BAYES,  # installed anyway; the name says what it is for
        "explain": ["captum>=0.7"],  # integrated gradients, SHAP and other explainers of evaluation
        "prodigy": ["prodigyopt>=1.1"],  # optimizer = prodigy
        "clip": ["open_clip_torch>=3.3"],  # gals, and zero-shot CLIP as a teacher
        # what Run.export needs for .onnx and .safetensors
        "export": [
            "onnx>=1.16",
            "onnxscript>=0.1",
            "onnxruntime>=1.18",
            "safetensors>=0.4.3",
        ],
        "timm": ["timm>=1.0.17"],  # backbones timm:NAME
        # --log NAME
        "tensorboard": ["tensorboard>=2.15"],
        "wandb": ["wandb>=0.20"],
        "mlflow": ["mlflow>=2.10"],
        "umap": ["umap-learn>=0.5.5"],  # the report's latent space by UMAP instead of PCA
        # sweep launch --launcher ray
        "ray": ["ray>=2.9"],
        "dicom": ["pydicom>=2.4"],  # X-rays in DICOM
        "hdf5": ["h5py>=3.8"],  # ImageNet-Segmentation
        "parquet": ["pyarrow>=14"],  # collect_results' tidy export
        "excel": ["openpyxl>=3.1"],  # collect_results --format excel
        # the documentation as a site: mkdocs serve
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6",
            "mkdocstrings[python]>=0.29",
            "mkdocs-jupyter>=0.25",
        ],
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.5",
            "setuptools>=70.1",  # from then on it builds wheels by itself
            "ruff>=0.6",
            "mypy>=1.11",
            "zennit>=0.5.1",
            "captum>=0.7",
            "prodigyopt>=1.1",
            "open_clip_torch>=3.3",
            "timm>=1.0.17",
            "bcos>=0.1.3",  # B-cos networks of their authors, as an oracle
            "nbclient>=0.10",  # docs/tour.ipynb is executed
            "ipykernel>=6.29",
        ],
    },
)

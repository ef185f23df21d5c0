"""Packaging of ShortcutBed; `pip install -e .` installs everything that the quickstart needs."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="shortcutbed",
    version="0.1.0",
    description="A benchmark harness for shortcut learning: train, explain, and say how sure the answer is",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["benchmark*", "algorithms*", "datasets*"]),
    install_requires=[
        "torch>=2.5",
        "torchvision>=0.20",
        "numpy>=1.26",
        "pandas>=2.1",
        "scipy>=1.11",
        "scikit-learn>=1.4",
        "scikit-image>=0.22",
        "pymc>=5.16",
        "tabulate>=0.9",
        "matplotlib>=3.8",
        "pebble>=5.0",
        # 4.1: a lease expires on the observer's monotonic clock. Below 5: benchmark/launch/lease.py knows the
        # names of the files that filelock puts aside while it takes a lease over.
        "filelock>=4.1,<5",
        "rich>=13.7",
    ],
    extras_require={
        "umap": ["umap-learn>=0.5.5"],  # the report's latent space by UMAP instead of PCA
        "dicom": ["pydicom>=2.4"],  # X-rays in DICOM
        "parquet": ["pyarrow>=14"],  # collect_results' tidy export
        "test": [
            "pytest>=8",
            "pytest-timeout",
            "pytest-xdist",
            "ruff>=0.6",
            "mypy>=1.11",
            "zennit>=0.5.1",
            "captum>=0.7",
        ],
    },
)

"""What setup.cfg cannot say: configs/ is part of the wheel, as the package's folder of the same name."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sfa_hf*"]), "sfa_hf.configs"],
    package_dir={"sfa_hf.configs": "configs"},
    package_data={
        "sfa_hf": ["py.typed", "reports/*.j2"],
        "sfa_hf.configs": ["**/*.yaml", "**/*.json", "**/*.jsonl"],
    },
)

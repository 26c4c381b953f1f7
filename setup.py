"""One wheel of packages in fdw/ and engine/, SQL in sql/ and C in fdw/native."""

from setuptools import find_packages, setup

PACKAGES = {
    **{name: f"engine/{name.replace('.', '/')}" for name in find_packages("engine")},
    "tinydancer_fdw": "fdw/tinydancer_fdw",
    "tinydancer_fdw.native": "fdw/native",
    "tinydancer.sql": "sql",
}

setup(
    packages=sorted(PACKAGES),
    package_dir=PACKAGES,
    # What package_data names, and no more: folders of data would be taken for packages left out.
    include_package_data=False,
    package_data={
        "tinydancer.sql": ["**/*.sql"],
        "tinydancer_fdw.native": ["*.c", "*.h"],
        "tinydancer": ["py.typed", "**/*.safetensors", "**/*.json", "**/*.md"],
        "tinydancer_fdw": ["py.typed"],
    },
)

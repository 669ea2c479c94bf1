"""
Sphinx's settings for the pages.
"""

from importlib.metadata import version as installed_version

project = "Stillroom"
author = "The Stillroom developers"
copyright = "2026, The Stillroom developers"
version = release = installed_version("stillroom")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write `name` in single backticks

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_inherit_docstrings = False  # what SQLAlchemy says of its own classes links to its own pages
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"Stillroom {release}"

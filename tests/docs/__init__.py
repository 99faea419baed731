"""Every block of code in the documentation is run, or checked by the program that reads it.

What a page needs for that stands in comments, which neither GitHub nor the site shows. CONTRIBUTING.md says how.
"""

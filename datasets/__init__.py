"""Data sets of ShortcutBed, one per file. Every module here is imported by name.

Hugging Face's library has the same package name.
"""

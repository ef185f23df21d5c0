"""ShortcutBed data sets, one per file; every module here is imported by name. (Hugging Face uses this name too.)"""

"""ShortcutBed: which training methods learn the object, and which learn a shortcut?"""

__version__ = "0.1.0"

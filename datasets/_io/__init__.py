"""Reading images: files, archives, decoding, and the cache of decoded images."""

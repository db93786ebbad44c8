"""What the bytes of images are: by layer and by package, twice or hidden, alone or shared; and what they may be."""

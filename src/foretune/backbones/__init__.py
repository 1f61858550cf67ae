"""Pretrained models behind one face: tokenise, embed, an ordered list of layers, a head."""

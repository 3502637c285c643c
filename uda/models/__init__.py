"""Networks: the Segmenter contract, encoders, decoders, and what is built of them."""

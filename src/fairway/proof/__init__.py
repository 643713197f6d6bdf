"""A score is a code length: the code, the decoder, and the certificate that they agree."""

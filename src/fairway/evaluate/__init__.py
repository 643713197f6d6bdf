"""A model to a score: score first, then learn, in one walk over the validation text."""

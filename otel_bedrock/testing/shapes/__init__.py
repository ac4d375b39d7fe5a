"""How each kind of model spells requests, responses and stream chunks."""

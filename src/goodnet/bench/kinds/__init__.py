"""How each kind of cell is computed: one file per kind."""

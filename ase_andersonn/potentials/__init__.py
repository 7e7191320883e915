"""Networks of atoms whose features are at a fixed point; they know neither solver nor evaluator."""

"""From a raw surface to a game-ready asset: clean, simplify, unwrap, bake, write."""

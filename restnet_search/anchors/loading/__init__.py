"""Loading of anchors: build a model from timm or own code, find its weights, put them in."""

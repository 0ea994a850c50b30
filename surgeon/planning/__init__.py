"""From saliency to a plan: which layers are cut and how many experts each keeps."""

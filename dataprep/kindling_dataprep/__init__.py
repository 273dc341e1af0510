"""Raw text to tokenised shards: pure steps over documents, and the stages that run them so that a kill costs little."""

"""Files to Samples: ``load.load_data`` is the entrance, every other public module is one layout that people have."""

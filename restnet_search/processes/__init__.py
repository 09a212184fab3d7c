"""Child processes that do part of a long work: started by ``spawn``, heard through a pipe, gone when this one is."""

"""Static scanners, one per kind of file, behind ``goodnet.models.file_safety``: they read; they never load or run.

Standard library only, so that ``goodnet scan`` answers at once; h5py is imported in a process of its own.
"""

"""Networks: how they are built, read from the files of strangers, checked and saved."""

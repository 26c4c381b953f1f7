"""Every SQL statement the engine sends, and the snapshot it keeps."""

"""./kit parse: many documents, to files; goes on where it was interrupted. docs/client.md."""

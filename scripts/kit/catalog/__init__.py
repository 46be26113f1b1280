"""What is known: settings, failure causes. Data and typed readers, nothing that acts."""

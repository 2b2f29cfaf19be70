"""Pictures and other files of jobs, in object storage."""

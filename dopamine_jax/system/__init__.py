"""What the framework needs of the operating system.

Files that are whole or not there (`plain_files`), files in folders that others
write too (`safe_files`), their words on a terminal (`texts`), signals, several
processes of one training, and what a run was made with (`provenance`).
"""

"""What can teach: one file per thing that is wrapped. All answer `teacher(batch)`."""

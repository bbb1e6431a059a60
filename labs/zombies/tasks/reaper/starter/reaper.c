/* A supervisor: starts the commands that it reads, and says how each of them ended. */

#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST 1000

static pid_t pid_of[MOST + 1]; /* The process id of each command, by its number. */

/* Start a command; its process id. */
static pid_t start(const char *command)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

int main(void)
{
    char line[4096];
    int number = 0;
    while (number < MOST && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        pid_of[++number] = start(line);
    }
    /* What is missing: wait for the children, while new commands may still come, and print number and status of each that ended. */
    return 0;
}
